// Whether a key sends what is written: Ctrl+Enter, and in a chat Enter alone. On a touch screen, whose keyboard has no
// Shift+Enter, Enter begins a new line.

const touch = matchMedia("(hover: none) and (pointer: coarse)");

export function sends(event, chat) {
  if (event.key !== "Enter" || event.isComposing) return false;
  return event.ctrlKey || event.metaKey || (chat && !event.shiftKey && !touch.matches);
}

export const sendingNote = (chat) =>
  chat && !touch.matches ? "Enter sends, Shift+Enter begins a new line." : "Ctrl+Enter sends.";
