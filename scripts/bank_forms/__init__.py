"""The bank's payment form: its layout, the hands that fill it and the flaws of a real hand-over."""
