"""What the method reaches on photographs and scenes: presets, walks, refinements."""
