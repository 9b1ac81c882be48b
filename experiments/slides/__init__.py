"""What a lesson shows and asks: for each experiment its figures and its exercises.

The experiment measures and claims; its slides draw what was measured, say in a title
what it shows, and ask what comes of a line that is changed.
"""
