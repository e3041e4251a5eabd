"""Where people and programs come in; they translate, and hold no logic."""
