"use strict";
(() => {
  const cards = [...document.querySelectorAll("article.completion")];
  const buttons = [...document.querySelectorAll("button[data-filter]")];
  const step = document.getElementById("step");
  const count = document.getElementById("count");
  let verdict = "";

  function show() {
    let shown = 0;
    for (const card of cards) {
      const fits = (!step.value || card.dataset.step === step.value) && (!verdict || card.dataset.verdict === verdict);
      card.hidden = !fits;
      shown += fits;
    }
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.filter === verdict));
    count.textContent = `${shown} of ${cards.length} completions shown`;
  }

  function point(line, token) {
    if (!token) return;
    line.querySelector(".current")?.classList.remove("current");
    token.classList.add("current");
    line.nextElementSibling.textContent = `${JSON.stringify(token.textContent)}: ${token.title}`;
  }

  for (const button of buttons) {
    button.addEventListener("click", () => { verdict = button.dataset.filter; show(); });
  }
  for (const line of document.querySelectorAll(".tokens")) {
    line.addEventListener("mouseover", (event) => point(line, event.target.closest(".t")));
    line.addEventListener("keydown", (event) => {
      const current = line.querySelector(".current");
      const next = {
        ArrowRight: current ? current.nextElementSibling : line.firstElementChild,
        ArrowLeft: current ? current.previousElementSibling : line.lastElementChild,
        Home: line.firstElementChild,
        End: line.lastElementChild,
      };
      if (!(event.key in next)) return;
      event.preventDefault();
      point(line, next[event.key]);
    });
  }
  if (step) {
    step.addEventListener("change", show);
    show();
  }
})();
