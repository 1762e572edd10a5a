// Before the first paint: the theme that the reader chose; without one the system's.
try {
  const chosen = JSON.parse(localStorage.getItem(`ochat ${new URL(".", document.baseURI).pathname} theme`));
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch {
  // storage is off: the system's theme
}
