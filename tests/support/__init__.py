"""What several tests need: events, clocks, scripted peers, plugins in the making. Holds no tests."""
