"""Training runs with curves: short ones (``curves``), those of ``kobai train``'s settings (``from_settings``), many (``workers``)."""
