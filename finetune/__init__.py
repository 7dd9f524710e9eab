"""A dataset in; a run, a merged model, traces and reports out."""
