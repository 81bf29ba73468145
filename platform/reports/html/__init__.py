"""The report and the page over the paper's tables as HTML: values, charts, pictures, templates."""
