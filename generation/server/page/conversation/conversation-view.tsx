import type { Exchange, Medium } from '../exchange.js'
import { statusText } from './conversation-state.js'
import { ExchangeView } from './exchange-view.js'

/** A token of an answer: the id of its exchange, and its index. */
export type TokenPosition = readonly [exchange: number, token: number]

interface ConversationViewProps {
  readonly exchanges: readonly Exchange[]
  readonly selected: Medium | undefined
  readonly onSelect: (medium: Medium) => void
  readonly showTokens: boolean
  readonly focused: TokenPosition | undefined
  readonly onFocus: (position: TokenPosition | undefined) => void
  /** The token whose heat map is shown. */
  readonly chosen: TokenPosition | undefined
  /** Receives the index of an exchange and of a token of its answer. */
  readonly onChoose: (exchange: number, token: number) => void
  readonly onRetry: () => void
}

/** All questions and answers, and for screen readers the status of the last. */
export const ConversationView = (props: ConversationViewProps) => {
  const { exchanges, selected, showTokens, focused, chosen } = props
  const hasImages = exchanges.some(({ media }) => media.some(({ kind }) => kind === 'image'))
  const last = exchanges.at(-1)
  const canRetry = last && ['failed', 'stopped'].includes(last.answer.status)
  const tokenOf = (position: TokenPosition | undefined, { id }: Exchange) => (position?.[0] === id ? position[1] : undefined)
  return (
    <section class="conversation" aria-label="Conversation">
      {showTokens && (
        <p class="legend" id="token-help">
          Probability of a token: 100 % <span class="scale" aria-hidden="true" /> 0 %. Hover or focus a token for its alternatives
          {hasImages && '; click it, or press Enter, for its heat map over the image'}.
        </p>
      )}
      {!last && <p class="empty">Drop, paste or choose an image or a video, and ask about it.</p>}
      <ol>
        {exchanges.map((exchange, i) => (
          <ExchangeView
            key={exchange.id}
            exchange={exchange}
            isSelected={({ id }) => id === selected?.id}
            onSelect={props.onSelect}
            showTokens={showTokens}
            focusedToken={tokenOf(focused, exchange)}
            onFocusToken={(token) => props.onFocus(token === undefined ? undefined : [exchange.id, token])}
            chosenToken={tokenOf(chosen, exchange)}
            onChooseToken={hasImages ? (token) => props.onChoose(i, token) : undefined}
            onRetry={canRetry && exchange === last ? props.onRetry : undefined}
          />
        ))}
      </ol>
      <p class="visually-hidden" role="status">
        {statusText(last?.answer)}
      </p>
    </section>
  )
}
