"""How much to draft and what to accept: planner, costs, calibration, budget and the walk."""
