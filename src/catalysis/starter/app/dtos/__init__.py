"""What comes in and goes out by HTTP.  Nothing here holds a password hash, and unknown keys are refused."""
