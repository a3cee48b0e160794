"""Many runs: ``comparison`` is the product of conditions, ``tuning`` a search; their files, figures and processes."""
