"""`python -m mxgw_dashboard_tui`: the command without the rest of `mxgw`, for processes that show the app."""

from mxgw_dashboard_tui.command import dashboard

if __name__ == "__main__":
    dashboard.main(prog_name="mxgw dashboard")
