"""`python -m mxgw_dashboard_tui` runs `mxgw dashboard` without the rest of `mxgw`.

`mxgw dashboard --serve` starts this program once for each open page of a browser.
"""

from mxgw_dashboard_tui.command import dashboard

if __name__ == "__main__":
    dashboard.main(prog_name="mxgw dashboard")
