"""What tests of several parts need, for example events, clocks and scripted workers. This package contains no tests."""
