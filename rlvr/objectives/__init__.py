"""What is minimised, and divided by what?"""
