"""The machine room: the engine, the workers, and what isolates the work. Nobody imports it."""
