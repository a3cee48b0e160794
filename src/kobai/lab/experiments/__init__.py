"""The experiments of the lab, one module each; ``kobai.lab.experiments.register`` says what they have in common."""
