"""What was run once and is not part of the package: trainers and sweeps."""
