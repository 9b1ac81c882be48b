"""The figures and exercises of each lesson.

An experiment measures and makes claims. Its slides draw the measurements, state the
result in the title of each figure, and ask what happens if a line is changed.
"""
