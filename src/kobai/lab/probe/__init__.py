"""Measuring a net while it trains: ``probes`` hooks into layers, ``moments`` computes statistics, ``readings`` holds them."""
