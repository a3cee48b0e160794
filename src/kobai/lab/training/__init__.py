"""Training runs with curves: short ones (``curves``), those that settings describe (``from_settings``), many (``workers``)."""
