"""The experiments of the lab, one module each; ``kobai.lab.experiment`` says what they have in common."""
