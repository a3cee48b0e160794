"""Many runs: ``compare`` does all combinations of some settings, ``tune`` searches them; their files and figures."""
