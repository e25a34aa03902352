"""`python -m mxgw_dashboard_tui`: the command without the rest of `mxgw`; `--serve` starts it for each open page."""

from mxgw_dashboard_tui.command import dashboard

if __name__ == "__main__":
    dashboard.main(prog_name="mxgw dashboard")
