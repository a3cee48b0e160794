"""Training runs with curves: short ones (``curves``), those of ``kobai train``'s settings (``running``), many (``workers``)."""
