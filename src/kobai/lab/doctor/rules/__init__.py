"""The rules by which a net is judged, one file for each subject: thresholds, entries of the catalogue, and functions of a
:class:`View` that return a finding or None."""
