"""Our side of the measurements."""
