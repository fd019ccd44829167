"""`python -m data.synthetic.ears`, `faces` and `scenes`."""
