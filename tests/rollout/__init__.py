"""Whole rollouts by the command line: simulated nodes with the real scripts, a real API server, real SSH."""
