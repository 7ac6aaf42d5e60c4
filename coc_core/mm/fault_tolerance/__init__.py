"""What makes a training survive: whole files, places instead of random states, loops and hooks that stop and go on."""
