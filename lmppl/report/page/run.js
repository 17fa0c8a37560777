// The page of a run, on opening.

function start() {
  followTheme(document.getElementById("theme"));
  listenToDraws();
  sayWhatScrolls();
  drawAll(page.rows.length ? pick(0) : []).then(() => { document.documentElement.dataset.drawn = "all"; });
}

start();
