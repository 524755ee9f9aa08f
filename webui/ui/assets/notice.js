// Body of a function (element, trigger, props, server, upload, watch), run once when the widget is on the page.
const list = element.querySelector(".notices");
watch("value", () => {
  const { text, good } = props.value || {};
  if (!text) return;
  const line = document.createElement("div");
  line.className = good ? "notice good" : "notice";
  line.textContent = text;
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "×";
  close.setAttribute("aria-label", "Dismiss");
  close.onclick = () => line.remove();
  line.append(close);
  list.append(line);
  setTimeout(() => line.remove(), good ? 4000 : 9000);
});
