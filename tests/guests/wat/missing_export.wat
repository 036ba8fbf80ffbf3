;; A valid component that exports nothing: it lacks `functions`.
(component)
