const bar = document.querySelector(".filters");
if (bar) {
  const cards = [...document.querySelectorAll("#mistakes .row")];
  const shown = bar.querySelector("output");
  const show = (button) => {
    const tag = button.dataset.tag;
    for (const card of cards) card.hidden = tag !== "" && !card.dataset.tags.split("\n").includes(tag);
    for (const other of bar.querySelectorAll("button")) other.setAttribute("aria-pressed", other === button);
    shown.textContent = `${cards.filter((card) => !card.hidden).length} shown`;
  };
  bar.hidden = false;
  bar.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) show(button);
  });
}
