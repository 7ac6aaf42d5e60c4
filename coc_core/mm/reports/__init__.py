"""What ``tools/test.py --report`` writes: evaluators that keep what went wrong, and the page that shows it."""
