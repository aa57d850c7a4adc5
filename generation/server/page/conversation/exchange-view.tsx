import { parseGrounding } from '../../../grounding.js'
import { type Answer, type Exchange, isOpen, type Medium, tokensPerSecond } from '../exchange.js'
import { boxColour } from '../image-view.js'
import { TokenView } from './token-view.js'

/** Counts and speed of an answer in words. */
const figuresText = (answer: Answer): string => {
  const { tokens, sentAt, firstAt, usage, status, finishReason } = answer
  const speed = tokensPerSecond(answer)
  const { image_tokens: image = 0, cached_tokens: cached = 0 } = usage?.prompt_tokens_details ?? {}
  const parts = [
    tokens.length > 0 && `${tokens.length} ${tokens.length === 1 ? 'token' : 'tokens'}`,
    speed !== undefined && `${speed.toFixed(speed < 10 ? 1 : 0)} tokens/s`,
    firstAt !== undefined && `first after ${((firstAt - sentAt) / 1000).toFixed(2)} s`,
    usage &&
      `prompt ${usage.prompt_tokens} tokens${image > 0 ? `, ${image} of images` : ''}${cached > 0 ? `, ${cached} reused` : ''}`,
    status === 'stopped' && 'stopped',
    finishReason === 'length' && 'ended at the limit of tokens'
  ]
  return parts.filter(Boolean).join(' · ')
}

const groundingParts = /<ref>(.*?)<\/ref>|<box>(.*?)<\/box>/gs

/** The text of an answer; labels of boxes have the colour of their boxes. */
const AnswerText = ({ answer }: { readonly answer: Answer }) => {
  const { groundings } = parseGrounding(answer.grounded)
  if (groundings.length === 0) return <div class="text">{answer.text}</div>
  const parts = answer.grounded.split(groundingParts) // text, label, box, text, …
  return (
    <div class="text">
      {parts.map((part, i) => {
        if (i % 3 === 0 || part === undefined) return part
        if (i % 3 === 2) return <small key={i}>{part}</small>
        return (
          <mark class={boxColour(groundings, part)} key={i}>
            {part}
          </mark>
        )
      })}
    </div>
  )
}

interface ExchangeViewProps {
  readonly exchange: Exchange
  readonly isSelected: (medium: Medium) => boolean
  readonly onSelect: (medium: Medium) => void
  readonly showTokens: boolean
  readonly focusedToken: number | undefined
  readonly onFocusToken: (index: number | undefined) => void
  /** Index of the token whose heat map is shown. */
  readonly chosenToken: number | undefined
  readonly onChooseToken: ((index: number) => void) | undefined
  /** Sends the question again; undefined where that is not possible. */
  readonly onRetry: (() => void) | undefined
}

/** A question with its images, and its answer. */
export const ExchangeView = ({
  exchange,
  isSelected,
  onSelect,
  showTokens,
  focusedToken,
  onFocusToken,
  chosenToken,
  onChooseToken,
  onRetry
}: ExchangeViewProps) => {
  const { question, media, answer } = exchange
  return (
    <li class="exchange">
      <article class="question" aria-label="Question">
        {media.length > 0 && (
          <div class="media">
            {media.map((medium) => (
              <button type="button" aria-pressed={isSelected(medium)} onClick={() => onSelect(medium)} key={medium.id}>
                {medium.kind === 'image' ? (
                  <img src={medium.preview} alt={`Show ${medium.name}`} />
                ) : (
                  <video src={medium.preview} muted aria-label={`Show ${medium.name}`} />
                )}
              </button>
            ))}
          </div>
        )}
        <div class="text">{question}</div>
      </article>
      <article class="answer" aria-label="Answer" aria-busy={isOpen(answer)}>
        {answer.status === 'waiting' && <div class="waiting">The model reads the question …</div>}
        {showTokens && answer.tokens.length > 0 ? (
          <TokenView
            tokens={answer.tokens}
            focused={focusedToken}
            onFocus={onFocusToken}
            chosen={chosenToken}
            onChoose={onChooseToken}
          />
        ) : (
          <AnswerText answer={answer} />
        )}
        {answer.error !== undefined && (
          <p class="problem" role="alert">
            {answer.error}
          </p>
        )}
        <footer>
          {figuresText(answer)}
          {onRetry && (
            <button type="button" class="quiet" onClick={onRetry}>
              Ask again
            </button>
          )}
        </footer>
      </article>
    </li>
  )
}
