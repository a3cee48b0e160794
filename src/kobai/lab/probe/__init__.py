"""Measuring a net while it trains: ``probes`` hooks its layers, ``moments`` takes their statistics, ``readings`` holds them."""
