"""The engine: units of work on a pool of Ray workers, with attempts, timeouts and progress. Only `pool` imports ray."""
