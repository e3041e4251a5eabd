"""What can be shown of models and installations: signatures, bills of materials."""
