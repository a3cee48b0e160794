"""Training runs with curves: short ones (``curves``), runs by settings (``from_settings``), several at once (``workers``)."""
