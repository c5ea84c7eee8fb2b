"""The headless half of slotdeck."""

__version__ = "0.1.0"
