"""The exam of the doctor: situations from public reports, each with its answer. Run by ``scripts/doctor_exam.py``."""
