"""What an adapter costs: steps.py, switching.py, savings.py and shares.py each answer a question."""
