// Runs before the first paint: the theme that was chosen, so that the page does not flash.
try {
  const chosen = localStorage.getItem("headwater-theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch { /* storage is switched off: the system's theme it is */ }
