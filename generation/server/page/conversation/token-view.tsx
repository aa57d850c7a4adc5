import { useLayoutEffect, useRef } from 'preact/hooks'
import type { AnswerToken, TokenChoice } from '../exchange.js'

const percent = (logprob: number): string => {
  const value = 100 * Math.exp(logprob)
  return `${value > 0 && value < 0.1 ? '<0.1' : value.toFixed(value < 10 ? 1 : 0)} %`
}

/** A token that is shown: line breaks and spaces have no form of their own. */
const visible = (token: string): string => token.replaceAll('\n', '⏎').replaceAll('\t', '⇥').replaceAll(' ', '␣') || '∅'

const alternativesOf = ({ token, top_logprobs: top }: AnswerToken): readonly TokenChoice[] =>
  top.filter((choice) => choice.token !== token)

/** A sentence for screen readers. */
const spoken = (token: AnswerToken): string => {
  const others = alternativesOf(token).map(
    (choice) => `${choice.token.trim() || visible(choice.token)} ${percent(choice.logprob)}`
  )
  return `${token.token.trim() || visible(token.token)}, ${percent(token.logprob)}; alternatives: ${others.join(', ') || 'none'}`
}

/** The chosen token and its alternatives with their probabilities, within the width of the window. */
const Alternatives = ({ token }: { readonly token: AnswerToken }) => {
  const box = useRef<HTMLSpanElement>(null)
  useLayoutEffect(() => {
    const { style } = box.current!
    style.left = '0'
    const { right } = box.current!.getBoundingClientRect()
    style.left = `${Math.min(0, document.documentElement.clientWidth - 8 - right)}px`
  }, [token])
  return (
    <span class="alternatives" role="tooltip" ref={box}>
      {[token, ...alternativesOf(token)].map((choice, i) => (
        <span class="alternative" key={`${i} ${choice.token}`}>
          <code>{visible(choice.token)}</code>
          <span class="bar">
            <span style={{ width: `${100 * Math.exp(choice.logprob)}%` }} />
          </span>
          <span>{percent(choice.logprob)}</span>
        </span>
      ))}
    </span>
  )
}

interface TokenViewProps {
  readonly tokens: readonly AnswerToken[]
  /** Index of the token whose alternatives are shown. */
  readonly focused: number | undefined
  readonly onFocus: (index: number | undefined) => void
  /** Index of the token whose heat map is shown. */
  readonly chosen: number | undefined
  /** Asks for the heat map of a token; undefined where the conversation has no image. */
  readonly onChoose: ((index: number) => void) | undefined
}

/** The tokens of an answer, coloured by probability. A focused token shows its alternatives; arrow keys move the focus; Enter or a click chooses it. */
export const TokenView = ({ tokens, focused, onFocus, chosen, onChoose }: TokenViewProps) => {
  const list = useRef<HTMLDivElement>(null)
  const move = (index: number): void => {
    const items = list.current!.querySelectorAll<HTMLElement>('[role=option]')
    items[Math.max(0, Math.min(items.length - 1, index))]?.focus()
  }
  const onKeyDown = (event: KeyboardEvent): void => {
    const at = focused ?? 0
    const targets: Readonly<Record<string, number>> = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tokens.length - 1 }
    const target = targets[event.key]
    if (event.key === 'Escape' && focused !== undefined) {
      event.stopPropagation()
      onFocus(undefined)
    }
    if (target === undefined) return
    event.preventDefault()
    move(target)
  }
  return (
    <div
      class="tokens"
      role="listbox"
      aria-orientation="horizontal"
      aria-label="Tokens and their probabilities"
      aria-describedby="token-help"
      ref={list}
      onKeyDown={onKeyDown}
    >
      {tokens.map((token, i) => (
        <span
          class="token"
          role="option"
          key={i}
          tabIndex={i === (focused ?? 0) ? 0 : -1}
          aria-selected={i === focused}
          aria-current={i === chosen}
          aria-label={spoken(token)}
          style={{ '--doubt': 1 - Math.exp(token.logprob) }}
          onFocus={() => onFocus(i)}
          onBlur={() => onFocus(undefined)}
          onMouseEnter={() => onFocus(i)}
          onMouseLeave={() => onFocus(undefined)}
          onClick={() => onChoose?.(i)}
          onKeyDown={({ key }) => key === 'Enter' && onChoose?.(i)}
        >
          {token.token}
          {i === focused && <Alternatives token={token} />}
        </span>
      ))}
    </div>
  )
}
