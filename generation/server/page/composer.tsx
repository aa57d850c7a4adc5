import { useRef } from 'preact/hooks'
import type { Medium } from './exchange.js'

interface ComposerProps {
  readonly text: string
  readonly media: readonly Medium[]
  readonly isAnswering: boolean
  readonly problem: string | undefined
  readonly onText: (text: string) => void
  readonly onFiles: (files: readonly File[]) => void
  readonly onRemove: (medium: Medium) => void
  readonly onSend: () => void
  readonly onStop: () => void
}

/** The field for a question, its images and videos, and the buttons to send and to stop. */
export const Composer = ({ text, media, isAnswering, problem, onText, onFiles, onRemove, onSend, onStop }: ComposerProps) => {
  const files = useRef<HTMLInputElement>(null)
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
    event.preventDefault()
    onSend()
  }
  const onSubmit = (event: Event): void => {
    event.preventDefault()
    onSend()
  }
  const onChosen = (): void => {
    onFiles([...files.current!.files!])
    files.current!.value = '' // the same file may be chosen again
  }
  return (
    <form class="composer" onSubmit={onSubmit} aria-label="Your question">
      {problem !== undefined && (
        <p class="problem" role="alert">
          {problem}
        </p>
      )}
      {media.length > 0 && (
        <ul class="attachments" aria-label="Images and videos of this question">
          {media.map((medium) => (
            <li key={medium.id}>
              {medium.kind === 'image' ? <img src={medium.preview} alt="" /> : <video src={medium.preview} muted />}
              <span>{medium.name}</span>
              <button type="button" class="quiet" aria-label={`Remove ${medium.name}`} onClick={() => onRemove(medium)}>
                ×
              </button>
            </li>
          ))}
        </ul>
      )}
      <textarea
        rows={1}
        value={text}
        aria-label="Question"
        placeholder="Ask about an image: drop it here, paste it, or choose a file"
        onInput={(event) => onText(event.currentTarget.value)}
        onKeyDown={onKeyDown}
      />
      <div class="buttons">
        <input type="file" hidden multiple accept="image/*,video/*,.heic,.mkv" ref={files} onChange={onChosen} />
        <button type="button" onClick={() => files.current!.click()}>
          Add image or video
        </button>
        {isAnswering ? (
          <button type="button" class="primary" aria-keyshortcuts="Escape" onClick={onStop}>
            Stop
          </button>
        ) : (
          <button type="submit" class="primary" disabled={text.trim() === ''}>
            Ask
          </button>
        )}
      </div>
    </form>
  )
}
