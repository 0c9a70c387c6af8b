"""Pure tensor functions that two or more methods share. They hold no state and change no input."""
