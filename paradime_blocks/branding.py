"""The logo and the documentation link that the Prefect UI shows with our blocks."""

DOCUMENTATION_URL = "https://github.com/prefect-paradime/prefect-paradime#configure"
LOGO_URL = "https://github.com/paradime-io.png?size=200"
