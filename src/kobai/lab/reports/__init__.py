"""Reports: one HTML file on a run, a comparison, a search or experiments (``reporting``), its pages and SVG charts."""
